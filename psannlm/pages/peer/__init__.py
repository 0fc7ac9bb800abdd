"""Peer: the published package beside this one."""
