//! Firecracker itself: its binary, its process, its API.
