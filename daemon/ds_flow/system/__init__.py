"""The host: durable files, locks, mounts, disk space, signals, logs, the terminal."""

from ds_flow.system.disk_space import require_space, space_lacking, space_shortage
from ds_flow.system.durable import (
    link_new,
    part_name,
    read_json,
    read_word,
    sync_dir,
    sync_file,
    sync_files,
    write_bytes,
    write_json,
    write_word,
)
from ds_flow.system.instance import WAKE_SIGNAL, running_pid, single_instance, wake_daemon
from ds_flow.system.links import is_at, real_path
from ds_flow.system.logging_setup import mask, masked, set_up_logging
from ds_flow.system.metaflow_store import (
    alone_in_store,
    empty_store_trash,
    hold_store,
    remove_stored_run,
    store_folder,
    stored_runs,
    unused_blobs,
    why_store_not_held,
)
from ds_flow.system.mounts import fs_type, is_network_fs
from ds_flow.system.private_files import IS_LINK, NOT_REGULAR, open_log, open_private, open_regular
from ds_flow.system.terminal import (
    DONE,
    FAILED,
    INTERRUPTED,
    Cell,
    put,
    put_document,
    put_lines,
    put_long_document,
    put_table,
    say,
)
from ds_flow.system.wake import Wake

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "IS_LINK",
    "NOT_REGULAR",
    "WAKE_SIGNAL",
    "Cell",
    "Wake",
    "alone_in_store",
    "empty_store_trash",
    "fs_type",
    "hold_store",
    "is_at",
    "is_network_fs",
    "link_new",
    "mask",
    "masked",
    "open_log",
    "open_private",
    "open_regular",
    "part_name",
    "put",
    "put_document",
    "put_lines",
    "put_long_document",
    "put_table",
    "read_json",
    "read_word",
    "real_path",
    "remove_stored_run",
    "require_space",
    "running_pid",
    "say",
    "set_up_logging",
    "single_instance",
    "space_lacking",
    "space_shortage",
    "store_folder",
    "stored_runs",
    "sync_dir",
    "sync_file",
    "sync_files",
    "unused_blobs",
    "wake_daemon",
    "why_store_not_held",
    "write_bytes",
    "write_json",
    "write_word",
]
