# What cffi generates has no types; this keeps `Any` out of every other module.
from typing import Any

ffi: Any
lib: Any
