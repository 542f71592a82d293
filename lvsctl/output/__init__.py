"""What people and programs read: pure functions from results to text and to JSON.

``text`` and ``jsonable`` have a function of the same name for each thing that is
reported; ``script`` turns a plan into a shell script.
"""
