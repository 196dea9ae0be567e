//! Plain TCP on one side, a rustls client on the other: every client of these tests can talk TLS through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::certificates::NAME;

/// A listener that takes each connection on to a server with TLS. The end of either direction is passed on as what it is
/// there: a FIN, or a `close_notify` and a FIN.
pub struct Tunnel {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Tunnel {
    pub fn to(server: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let runtime = bennu::server::runtime(2).expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move {
            while let Ok((plain, _)) = listener.accept().await {
                tokio::spawn(carry(plain, server, TlsConnector::from(Arc::clone(&config))));
            }
        });
        Tunnel { address, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An error ends both sides, as it would end the one connection in their place.
async fn carry(mut plain: TcpStream, server: SocketAddr, connector: TlsConnector) -> std::io::Result<()> {
    plain.set_nodelay(true)?;
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).expect("a host's name");
    let mut tls = connector.connect(name, stream).await?;
    tokio::io::copy_bidirectional(&mut plain, &mut tls).await?;
    Ok(())
}
