//! Serves the operator API over an invented shop, to work on the dashboard:
//! `cargo run --package selvedge-api --example dashboard`.
#![expect(clippy::print_stdout, reason = "it says where to look")]

use selvedge_api::operator::{Action, Config, Operated, Refusal, Server, view};
use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

struct Invented {
    begun: Instant,
    started_at_ms: u64,
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Operated for Invented {
    fn health(&self) -> view::Health {
        view::Health { live: true, ready: true, started: true, why: None }
    }

    fn services(&self) -> Vec<view::Service> {
        let seconds = self.begun.elapsed().as_secs_f64();
        [
            ("catalogue", 240.0, 0.002),
            ("orders", 96.0, 0.01),
            ("payments", 31.0, 0.42),
            ("reviews", 120.0, 0.0),
        ]
        .into_iter()
        .enumerate()
        .map(|(index, (name, rate, bad))| {
            // A rate that moves, as an integral.
            let calls = rate * seconds + rate * 1.5 * (1.0 - (seconds / 4.0 + index as f64).cos());
            let failing = bad > 0.1;
            let endpoint = |port: u16, down: bool| view::Endpoint {
                address: format!("10.0.{index}.7:{port}"),
                state: if down { "ejected" } else { "up" }.to_owned(),
                weight: 1,
                in_flight: (rate / 40.0) as u64,
                latency_ms: Some(if failing { 812.0 } else { 4.2 + index as f64 }),
                ejections: u64::from(down),
            };
            let endpoints = vec![endpoint(9001, false), endpoint(9002, index == 0)];
            let breakers = endpoints
                .iter()
                .map(|endpoint| view::Breaker {
                    endpoint: Some(endpoint.address.clone()),
                    state: if failing { "open" } else { "closed" }.to_owned(),
                    calls: 120,
                    failure_rate: bad,
                    history: if failing {
                        vec![view::Transition {
                            at_ms: unix_ms() - 4000,
                            from: "closed".to_owned(),
                            to: "open".to_owned(),
                            reason: "42 % of 120 calls failed".to_owned(),
                        }]
                    } else {
                        Vec::new()
                    },
                    ..view::Breaker::default()
                })
                .collect();
            view::Service {
                name: name.to_owned(),
                endpoints,
                breakers,
                counts: view::Counts {
                    calls: calls as u64,
                    good: (calls * (1.0 - bad)) as u64,
                    failed: (calls * bad / 4.0) as u64,
                    rejected: (calls * bad * 0.75) as u64,
                    attempts: (calls * 1.1) as u64,
                    retries: (calls * 0.1) as u64,
                    p50_ms: Some(4.0),
                    p99_ms: Some(if failing { 998.0 } else { 23.4 }),
                    ..view::Counts::default()
                },
                in_flight: (rate / 20.0) as u64,
                budget_left: Some(12.0),
                ..view::Service::default()
            }
        })
        .collect()
    }

    fn listeners(&self) -> Vec<view::Listener> {
        vec![view::Listener {
            name: "edge".to_owned(),
            address: "127.0.0.1:8080".to_owned(),
            role: "edge".to_owned(),
            connections: Some(17),
        }]
    }

    fn routes(&self) -> Vec<view::Route> {
        ["catalogue", "orders", "payments", "reviews"]
            .into_iter()
            .map(|name| view::Route {
                name: name.to_owned(),
                matches: format!("/{name}/**"),
                to: name.to_owned(),
                limit: None,
            })
            .collect()
    }

    fn explain(&self, question: &view::Question) -> Result<view::Explanation, String> {
        Ok(view::Explanation {
            url: question.url.clone(),
            verdict: "forward".to_owned(),
            ..view::Explanation::default()
        })
    }

    fn config_status(&self) -> view::ConfigStatus {
        view::ConfigStatus {
            generation: 4,
            file: "selvedge.yaml".to_owned(),
            loaded_at_ms: self.started_at_ms,
            last_error: Some(
                "selvedge.yaml:14:7: unknown key `timout`: did you mean `timeout`?".to_owned(),
            ),
            last_error_at_ms: Some(self.started_at_ms),
            version: "0.1.0".to_owned(),
            started_at_ms: self.started_at_ms,
        }
    }

    fn config_effective(&self) -> String {
        String::new()
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn act(&self, action: &Action) -> Result<view::Done, Refusal> {
        Ok(view::Done { done: format!("{action:?}"), generation: 4 })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9900".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("http://{}/", listener.local_addr()?);
    let invented = Invented { begun: Instant::now(), started_at_ms: unix_ms() };
    Server::new(Config::default(), Arc::new(invented)).run(listener, std::future::pending()).await;
    Ok(())
}
