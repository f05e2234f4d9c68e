//! The app API on a store of its own: `cargo run -p selvedge-api --example
//! app_api -- store.db 127.0.0.1:9901`.

use selvedge_api::app;
use selvedge_durable::{Config, Sqlite};
use tokio::net::TcpListener;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "an example talks to the person who runs it")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "store.db".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9901".to_owned());
    let store = Sqlite::open(Config::new(&path))?;
    let listener = TcpListener::bind(&address).await?;
    eprintln!("serving {path} on http://{}/openapi.json", listener.local_addr()?);
    app::Server::new(app::Config::default(), store).run(listener, std::future::pending()).await;
    Ok(())
}
