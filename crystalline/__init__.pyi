# The types of what __init__.py looks up when it is used.

from crystalline.errors import CheckpointError as CheckpointError
from crystalline.errors import CrystallineError as CrystallineError
from crystalline.errors import DataError as DataError
from crystalline.errors import DivergedError as DivergedError
from crystalline.errors import EngineError as EngineError
from crystalline.errors import SaveError as SaveError
from crystalline.errors import StoppedError as StoppedError
from crystalline.errors import UnsupportedError as UnsupportedError
from crystalline.errors import UsageError as UsageError
from crystalline.infer.perplexity import TextScore as TextScore
from crystalline.runs.door import Interrupted as Interrupted
from crystalline.runs.door import resume as resume
from crystalline.runs.door import train as train
from crystalline.runs.model import Model as Model
from crystalline.runs.model import load as load
from crystalline.runs.run import Run as Run
from crystalline.train.stats import Snapshot as Snapshot

__version__: str
