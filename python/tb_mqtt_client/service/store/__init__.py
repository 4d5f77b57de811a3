"""The disk store of one client: accepted sends are on disk until their outcome is known.

Files are read and written in a thread of the store, never in the event loop.
"""
