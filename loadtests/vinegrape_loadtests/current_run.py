"""State that the users, the load shape and the listeners of one Locust process share."""

from __future__ import annotations

from vinegrape_loadtests.pace import ClosedLoop, OpenLoop
from vinegrape_loadtests.response_checks import ResponseChecker
from vinegrape_loadtests.settings import LoadSettings

# Name of the Locust message after which the users of a process send no more requests
END_MESSAGE = "vinegrape_end"


class CurrentRun:
    """The run of this process. Each run that is started on Locust's web page sets these attributes again."""

    settings: LoadSettings
    checker: ResponseChecker
    pace: ClosedLoop | OpenLoop = ClosedLoop()
