"""The settings that `vinegrape serve` gets from a container's environment variables."""

import dataclasses
from collections.abc import Mapping

from vinegrape_handler.settings import WorkerSettings
from vinegrape_server.settings import ServeSettings

# Every variable that sets an option of `vinegrape serve`
VARIABLES = {
    f"VINEGRAPE_{field.name.upper()}"
    for settings in (ServeSettings, WorkerSettings)
    for field in dataclasses.fields(settings)
    if field.name != "worker"
}


def from_environment(environment: Mapping[str, str]) -> ServeSettings:
    """The settings of a server that starts with these variables and no options.

    Raises:
        SettingError: a variable has a value that the server rejects.
    """
    return ServeSettings.load({}, environment=environment)
