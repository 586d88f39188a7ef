//! The agent's service: sessions with the host, each on one connection.
//!
//! ```text
//!  greeting ──▶ request ──▶ exec ───▶ exit
//!                  │        main ───▶ the guest's end
//!                  │        file ───▶ done
//!                  │        ping, clock, shutdown ──▶ done
//!                  └──────────────────────────────▶ refusal
//! ```
//! A session is one thread with one poll loop; nothing is shared between sessions but their
//! number. A session that ends, for whatever reason, takes its command with it; only the main
//! command lives on.

mod address;
mod connection;
mod ending;
mod entropy;
mod exec;
mod file;
mod limit;
mod login;
mod main_command;
mod session;
mod spawn;
mod virtio_port;
mod vsock;

pub use limit::{Limit, Permit};
pub use session::{Guest, serve, serve_refusal};
pub use virtio_port::serve_port;
pub use vsock::serve_vsock;
