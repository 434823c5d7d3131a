"""How right a model is on labelled images."""

from .evaluating import Evaluation as Evaluation
from .evaluating import evaluate as evaluate
from .labelled import Labelled as Labelled
from .labelled import read_labelled as read_labelled
