import sys

import click
import pytest
from click.testing import CliRunner

from vinegrape_cli.lazy_group import LazyCommand, LazyGroup


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `lazy_example` with one command. `sys.modules` shows whether it is imported."""
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "greeting.py").write_text("import click\n\n@click.command()\ndef greet():\n    click.echo('hello')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("lazy_example")]:
        del sys.modules[name]


def group(**commands: LazyCommand) -> LazyGroup:
    return LazyGroup("example", lazy_commands=commands)


GREET = LazyCommand("lazy_example.greeting:greet", "Print a greeting.", "train")
MISSING = LazyCommand("lazy_missing.module:command", "Do something.", "train")


def test_a_command_is_imported_when_it_runs(package):
    assert CliRunner().invoke(group(greet=GREET), ["greet"]).output == "hello\n"


def test_the_help_imports_no_command(package):
    output = CliRunner().invoke(group(greet=GREET), ["--help"]).output
    assert "greet  Print a greeting." in output
    assert "lazy_example.greeting" not in sys.modules


def test_an_unknown_command_is_a_usage_error(package):
    result = CliRunner().invoke(group(greet=GREET), ["great"])
    assert result.exit_code == 2
    assert "No such command 'great'" in result.output


def test_a_command_of_a_missing_package_is_not_listed_and_fails_with_one_line(package):
    commands = group(greet=GREET, absent=MISSING)
    assert commands.list_commands(click.Context(commands)) == ["greet"]
    result = CliRunner().invoke(commands, ["absent"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: `example absent` needs the package lazy_missing, which is not installed here. "
        "Run it in an environment with the whole project.\n"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import no_such_library\ngreet = None\n",
        "import click\n\n@click.command()\ndef greet():\n    import no_such_library\n",
    ],
    ids=["at import", "at run"],
)
def test_a_missing_library_is_reported_with_the_command_that_installs_it(package, code):
    (package / "greeting.py").write_text(code)
    result = CliRunner().invoke(group(greet=GREET), ["greet"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: This command needs no_such_library, which is not installed here. "
        "Run: pip install -c constraints.txt -e '.[train]'\n"
    )
