"""python -m crystalline: the command `cllm`, where no script of that name is installed."""

import sys
from pathlib import Path

from crystalline.cli.umbrella import main

if __name__ == "__main__":
    sys.exit(main(program=f"{Path(sys.executable or 'python').name} -m crystalline"))
