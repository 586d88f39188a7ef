//! One VM's directory: its state on disk, its locks, the record it leaves.
