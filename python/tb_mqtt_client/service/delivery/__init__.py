"""From an accepted send to its result: intake, packing, admission, workers, outcomes and receipts.

Nothing here knows a socket or a topic.
"""
