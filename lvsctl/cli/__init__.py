"""The command line: arguments in, one call to ``lvsctl.engine``, text and an exit status out.

``commands`` lists the commands; ``labs``, ``inspect``, ``verify``, ``capture``, ``watch``,
``nodes``, ``fault``, ``plans``, ``doctor``, ``machine`` and ``demo`` implement them; ``where``
decides in which kernel they run.
"""
