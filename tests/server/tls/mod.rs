//! The server's own TLS: everything that holds over plain TCP, and what only TLS has.

mod certificates;
mod clients;
mod files;
mod handshakes;
mod recordings;
mod sockets;
mod tunnel;
