"""Object stores beside folders: what lies there, read, copied and written, by fsspec."""

from .addresses import StoreFile, is_address, list_store, open_binary, store_name
from .copies import local_copy
from .place import Place

__all__ = [
    "Place",
    "StoreFile",
    "is_address",
    "list_store",
    "local_copy",
    "open_binary",
    "store_name",
]
