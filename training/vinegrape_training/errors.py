"""The errors of training. Each message states the value, what is wrong with it, and what to do.

VinegrapeError            (vinegrape_handler.errors)
├── SettingError          (vinegrape_handler.errors) an invalid setting or override
├── ArchiveError          (vinegrape_handler.errors) an archive that cannot be written or read
├── DataError             a folder of images that cannot be read or trained on
├── ManifestError         a manifest of images that cannot be read
├── FetchError            the data set cannot be downloaded
├── ModelError            a network or its weights cannot be loaded
├── RunError              a folder that does not hold a finished run
├── ExportError           an export cannot be written
└── ParityError           an exported file returns other probabilities than the trained network
"""

from vinegrape_handler.errors import VinegrapeError


class DataError(VinegrapeError):
    """A folder of images that cannot be read or trained on."""


class ManifestError(VinegrapeError):
    """A manifest of images that cannot be read."""


class FetchError(VinegrapeError):
    """The data set cannot be downloaded."""


class ModelError(VinegrapeError):
    """A network or its weights cannot be loaded."""


class RunError(VinegrapeError):
    """A folder that does not hold a finished training run."""


class ExportError(VinegrapeError):
    """An export cannot be written."""


class ParityError(VinegrapeError):
    """An exported file returns other probabilities than the trained network."""
