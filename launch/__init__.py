"""Everything outside runs: starts trainings and sweeps, and reads their run directories. Never imports torch.

Read `__main__.py` first: it has the commands of `python -m launch`. Of stn it may import config, runs and tracking.
"""

import signal


def run() -> int:
    """Run the installed command, stn-launch; Ctrl-C during its imports leaves no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from launch.__main__ import main

    return main()
