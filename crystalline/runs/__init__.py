"""Runs as whoever starts them sees them: begun, resumed, described, loaded.

What the commands and the Python door share.  A run's settings come as a `RunSettings`; `begin`
and `resume` make of them a `ReadyRun`, whose lock is held and whose files are in place, and
which trains.  Nothing here prints: progress goes to callbacks, messages to the logger.
"""
