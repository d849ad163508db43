"""Read the instructions of a Dockerfile."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Dockerfile:
    """A parsed Dockerfile: each instruction with its arguments, in order."""

    def __init__(self, name: str) -> None:
        text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        self.instructions = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]

    def all(self, instruction: str) -> list[str]:
        """The arguments of every such instruction."""
        return [arguments for word, arguments in self.instructions if word == instruction]

    def one(self, instruction: str) -> str:
        """The arguments of the only such instruction."""
        (arguments,) = self.all(instruction)
        return arguments

    def json(self, instruction: str) -> list[str]:
        """The arguments of the only such instruction, which is in exec form (a JSON list)."""
        arguments: list[str] = json.loads(self.one(instruction))
        return arguments

    @property
    def environment(self) -> dict[str, str]:
        """The variables that ENV sets."""
        return dict(pair.split("=", 1) for arguments in self.all("ENV") for pair in arguments.split())

    @property
    def copied(self) -> set[str]:
        """The files and folders that COPY copies from the build context."""
        from_context = [arguments for arguments in self.all("COPY") if "--from=" not in arguments]
        return {word for arguments in from_context for word in arguments.split()[:-1] if not word.startswith("--")}
