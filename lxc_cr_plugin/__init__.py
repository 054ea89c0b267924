# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checkpoint and restart of Linux containers: memory and kernel state from one instant.

Start reading at `checkpoint.py` and `restore.py`; each is a contents page of what happens.
"""

__version__ = "0.1.0"
