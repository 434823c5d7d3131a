"""How right a model is on labelled images."""

from .evaluating import Evaluation as Evaluation
from .evaluating import Labelled as Labelled
from .evaluating import evaluate as evaluate
from .evaluating import read_labelled as read_labelled
