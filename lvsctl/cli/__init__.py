"""The command line, thin: words in, one call to ``lvsctl.engine``, text and an exit status out.

``tree`` lists the commands and ``labs``, ``nodes``, ``look``, ``plans``, ``host``, ``machine``
and ``demo`` are what they do; ``where`` decides in which kernel. What a command needs beyond
that it imports when it runs, so that ``lvsctl --help`` and completion stay quick.
"""
