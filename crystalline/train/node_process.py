"""Node Zero as a process: what the launcher starts, its signals, and how it tells of its end.

It reads a pickled `RunSpec` from standard input and reports as `crystalline.train.report` tells.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from typing import NoReturn

from crystalline._kernels.atomics import set_process_name
from crystalline.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    CrystallineError,
    EngineError,
    environment_error,
)
from crystalline.faults import NODE_ZERO, point, set_up
from crystalline.log import LOGGER_NAME
from crystalline.train.node_zero import NodeZero
from crystalline.train.report import ReportHandler, send
from crystalline.train.spec import RunSpec


class _Terminated(BaseException):
    """SIGTERM: the launcher is gone, or somebody wants us gone."""


def _on_sigterm(*_: object) -> NoReturn:
    raise _Terminated


def main(launcher: int, report: int) -> int:
    """Run as the process that `launcher` (a pid) started; return the exit code.

    When the launcher dies, this process is killed, even where it is stopped, and with it the
    spheres; the memory that they share has no name and goes with them.  The launcher has asked
    for that in our name, before our imports.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        if os.getppid() != launcher:
            return EXIT_FAILURE
        set_process_name("node-zero")
        handler = ReportHandler(report)
        logging.getLogger(LOGGER_NAME).addHandler(handler)
        logging.getLogger(LOGGER_NAME).setLevel(logging.INFO)
        set_up(NODE_ZERO)
        point("node.spec")
        with sys.stdin.buffer as file:
            spec: RunSpec = pickle.load(file)
        logging.getLogger(LOGGER_NAME).setLevel(spec.log_level)
        result = NodeZero(spec, report).run()
        point("node.result")
        send(report, "result", **result)
    except CrystallineError as error:
        return _report_error(report, error)
    except (_Terminated, BrokenPipeError):  # the launcher is gone: nobody listens
        return EXIT_FAILURE
    except Exception as error:
        found = environment_error(error)
        if found is None:  # our own mistake: its traceback is passed on
            raise
        return _report_error(report, EngineError(found.message, advice=found.advice))
    return EXIT_OK


def _report_error(report: int, error: CrystallineError) -> int:
    send(report, "error", type=type(error).__name__, message=error.message, advice=error.advice)
    return EXIT_FAILURE
