//! An event-sourced bank account with two projections, in one file on disk.
//!
//! `cargo run --example bank-account` tells the story of the README.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command line")]

mod account;
mod views;

use std::{error::Error, path::PathBuf, time::Duration};

use account::{Account, Command, euros};
use selvedge::durable::{
    Config, Sqlite,
    aggregate::{Context, ExecuteError, Repository},
    projection::{Follower, Projection, Settings, Source, StateModel, Views},
};
use tokio::task::JoinHandle;
use views::{Balance, Balances, Line, Statements};

type Done<T = ()> = Result<T, Box<dyn Error>>;

/// How long one waits to read one's own write.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bank in a file: accounts to write to, and two views to read.
struct Bank {
    store: Sqlite,
    accounts: Repository<Sqlite, Account>,
    balances: Views<Sqlite>,
    statements: Views<Sqlite>,
}

impl Bank {
    async fn open(path: PathBuf) -> Done<Self> {
        let store = Sqlite::open(Config::new(path))?;
        let bank = Self {
            accounts: Repository::new(store.clone()),
            balances: Views::new(store.clone(), "balances"),
            statements: Views::new(store.clone(), "statements"),
            store,
        };
        let settings = Settings::default();
        let balances = StateModel::open(bank.store.clone(), "balances", "v1", Balances, settings);
        bank.follow(balances.await?);
        Ok(bank)
    }

    /// Begins, or goes on with, a generation of the statements.
    async fn tell(&self, generation: &str, with_balance: bool) -> Done<JoinHandle<()>> {
        let (store, settings) = (self.store.clone(), Settings::default());
        let projection = Statements { with_balance };
        let model = StateModel::open(store, "statements", generation, projection, settings);
        Ok(self.follow(model.await?))
    }

    /// Takes events into a view from now on, beside whatever else happens.
    fn follow<P: Projection + 'static>(&self, mut model: StateModel<Sqlite, P>) -> JoinHandle<()> {
        let follower = Follower::new(self.store.clone(), Source::Events);
        let follower = follower.polling(Duration::from_millis(5));
        tokio::spawn(async move {
            if let Err(error) = follower.run(&mut model, std::future::pending()).await {
                eprintln!("a projection stopped: {error}");
            }
        })
    }

    /// Does a command under a name of its own, and waits until both views know.
    async fn order(&self, name: &str, commands: &[(&str, &Command)]) -> Done {
        let context = Context { command: Some(name.to_owned()), ..Context::default() };
        match self.accounts.execute_all(commands, &context).await {
            Ok(done) => {
                for view in [&self.balances, &self.statements] {
                    if !view.wait_for(done.position, PATIENCE).await? {
                        return Err("a view does not keep up".into());
                    }
                }
                let said = if done.repeated { "was done before" } else { "done" };
                println!("{name}: {said}");
                Ok(())
            }
            Err(ExecuteError::Rejected(why)) => {
                println!("{name}: rejected, {why}");
                Ok(())
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    async fn transfer(&self, name: &str, from: &str, to: &str, cents: u64) -> Done {
        let send = Command::Send { to: to.to_owned(), cents };
        let receive = Command::Receive { from: from.to_owned(), cents };
        self.order(name, &[(from, &send), (to, &receive)]).await
    }

    async fn print_balances(&self) -> Done {
        println!("balances:");
        for (id, balance) in self.balances.list::<Balance>("", "", 1000).await? {
            println!("  {id:<8} {:>8}  {}", euros(balance.cents), balance.owner);
        }
        Ok(())
    }

    async fn print_statement(&self, id: &str) -> Done {
        println!("statement of {id}, {}:", self.statements.active().await?);
        for (_, line) in self.statements.list::<Line>(&format!("{id}/"), "", 1000).await? {
            let balance = line.balance.map(|cents| format!(" {:>9}", signed(cents)));
            let text = format!(
                "  {:<16} {:>9}{}",
                line.text,
                signed(line.cents),
                balance.unwrap_or_default()
            );
            println!("{text}");
        }
        Ok(())
    }

    /// Builds the statements anew, beside the ones that are read, and switches.
    async fn rebuild_statements(&self, old: JoinHandle<()>) -> Done {
        self.tell("v2", true).await?;
        loop {
            let all = self.statements.status(&Source::Events).await?;
            if all.iter().any(|one| one.generation == "v2" && one.lag == 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.statements.switch(&Source::Events, "v2", 0).await?;
        old.abort();
        self.statements.remove("v1").await?;
        println!("statements: switched to v2, v1 removed");
        Ok(())
    }
}

fn signed(cents: i64) -> String {
    format!("{}{}", if cents < 0 { "-" } else { "" }, euros(cents.unsigned_abs()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let folder = tempfile::tempdir()?;
    let bank = Bank::open(folder.path().join("bank.db")).await?;
    let first_edition = bank.tell("v1", false).await?;
    let open = |owner: &str| Command::Open { owner: owner.to_owned() };
    bank.order("open ada", &[("ada", &open("Ada"))]).await?;
    bank.order("open bob", &[("bob", &open("Bob"))]).await?;
    let deposit = Command::Deposit { cents: 10_000 };
    bank.order("order 1", &[("ada", &deposit)]).await?;
    // The answer was lost, say: the caller sends the same command once more.
    bank.order("order 1", &[("ada", &deposit)]).await?;
    bank.order("order 2", &[("ada", &Command::Withdraw { cents: 50_000 })]).await?;
    bank.transfer("order 3", "ada", "bob", 3_000).await?;
    bank.transfer("order 4", "bob", "carl", 1_000).await?;
    bank.order("order 5", &[("bob", &Command::Withdraw { cents: 550 })]).await?;
    bank.print_balances().await?;
    bank.print_statement("ada").await?;
    bank.rebuild_statements(first_edition).await?;
    bank.print_statement("ada").await?;
    bank.order("order 6", &[("ada", &Command::Deposit { cents: 100 })]).await?;
    bank.print_statement("ada").await
}
