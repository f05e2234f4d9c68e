//! A pooler between the store and its server: refused, with the reason.

use std::process::{Child, Command, Stdio};

use selvedge_durable::{Config, Postgres};

use super::server::Server;

/// The real one, ended with the value.
struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_pooler_is_refused_whether_or_not_it_says_what_it_is() {
    let server = Server::own();
    for (mode, lenient) in
        [("transaction", ""), ("transaction", "options"), ("session", ""), ("session", "options")]
    {
        let folder = server.folder_for("pooler");
        let settings = format!(
            "[databases]\n* = host={} port=5432\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {folder}\n\
             listen_port = 6432\nauth_type = any\npool_mode = {mode}\n\
             ignore_startup_parameters = extra_float_digits,{lenient}\n",
            server.socket_folder()
        );
        let settings = settings.replace("* = ", "postgres = user=postgres ");
        let file = server.file("pgbouncer.ini", &settings);
        let program =
            std::env::var_os("SELVEDGE_PGBOUNCER").unwrap_or_else(|| "/usr/sbin/pgbouncer".into());
        let mut command = server.as_its_user(program.as_ref());
        let pooler = command.arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pooler = Pooler(pooler.expect("PgBouncer starts"));
        let socket = format!("{folder}/.s.PGSQL.6432");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::yield_now();
        }
        let url = format!("host={folder} port=6432 user=postgres dbname=postgres");
        // The pooler itself works.
        let psql = Command::new("psql").args(["-At", "-c", "SELECT 1", &url]).output().unwrap();
        assert_eq!(psql.stdout.trim_ascii(), b"1", "{}", String::from_utf8_lossy(&psql.stderr));
        let refused = Postgres::open(Config::postgres(url)).unwrap_err();
        assert_eq!(refused.code(), "SV0415", "{mode} {lenient}: {refused}");
        assert!(refused.to_string().contains("pooler"), "{mode} {lenient}: {refused}");
        drop(pooler);
    }
    // To the server itself it goes as before.
    Postgres::open(Config::postgres(server.url())).unwrap();
}
