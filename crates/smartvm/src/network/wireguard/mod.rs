//! WireGuard tunnels for guests' traffic.

mod config;

pub use config::{Config, ConfigError, Endpoint, Key, Peer};
