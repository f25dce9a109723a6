"""The language server: findings, fixes and pages of rules in an editor, over standard input and output.

`server` speaks the protocol and never computes; what takes time is done by a process of its own (`worker`, `child`, `work`), which
may be slow, be killed or crash without the editor noticing more than a line in its log. Only this package knows pygls.
"""
