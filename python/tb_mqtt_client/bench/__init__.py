"""Measurements for ``tb-mqtt bench``: of this package, and of other programs for the same work.

Each program is measured in a process of its own, which runs ``worker.py``. The work that is timed there is one round: all sends of
a corpus. What the first round produced is compared with the corpus before anything is timed.
"""
