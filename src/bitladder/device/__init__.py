"""What a terminal can do: its cores, caches, memory and instruction sets, and how long a network takes on it.

>>> from bitladder import device
>>> device.terminal(caches=(32 * 1024, 1024 * 1024)).caches
(32768, 1048576)
"""

from bitladder.device.machine import Terminal, terminal, weight_bytes
from bitladder.device.times import Time, Times, measure

__all__ = ["Terminal", "Time", "Times", "measure", "terminal", "weight_bytes"]
