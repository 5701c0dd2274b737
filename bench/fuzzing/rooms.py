"""The rooms of the campaign by name."""

from fuzzing.campaign import Room
from fuzzing.inputs import Inputs
from fuzzing.models import Folders, GgufFiles, Templates
from fuzzing.stores import Stores

ROOMS: dict[str, type[Room]] = {
    "inputs": Inputs,
    "folders": Folders,
    "templates": Templates,
    "gguf": GgufFiles,
    "store": Stores,
}
