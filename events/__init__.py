"""The language of Foldex and its log: commands, events, frames, and where they are kept.

Imports nothing from `exchange`: a reader of the log needs this package alone.
"""
