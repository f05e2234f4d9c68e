//! Operations of every kind, and answers from which nothing is lost: the form of
//! [`selvedge_durable::wire`], which the client in Rust speaks. What is asked
//! for most and must be quick is read by [`super::operations`].

use bytes::Bytes;
use selvedge_durable::{
    Answer, Operation,
    wire::{AnswerLine, Answers, Asked, Came, Line, Shown, Transaction},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Problem, WAIT_MAX};

/// What a line asks for, and how it is to be answered.
pub(super) struct Given {
    id: Option<Value>,
    shown: Shown,
    /// Whether several answers are wanted, be they of one operation.
    several: bool,
}

impl Given {
    pub(super) fn new(line: Line) -> (Self, Result<Vec<Operation>, Problem>) {
        let Line { id, exact, asked } = line;
        let shown = if exact { Shown::Exact } else { Shown::Readable };
        let several = matches!(asked, Asked::Transact(_));
        (Self { id, shown, several }, patient(asked))
    }

    /// The line that answers it.
    pub(super) fn answer(self, came: Result<Vec<Answer>, Problem>) -> Bytes {
        let came = match came {
            Ok(answers) => match &answers[..] {
                [answer] if !self.several => Came::new(answer, self.shown),
                answers => Came::Answers(Answers::new(answers, self.shown)),
            },
            Err(problem) => {
                let mut line = problem.value();
                if let Some(id) = self.id {
                    line["id"] = id;
                }
                return Bytes::from(format!("{line}\n"));
            }
        };
        line(&AnswerLine { id: self.id, came })
    }
}

fn line(answer: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(answer).expect("answers serialize");
    line.push(b'\n');
    Bytes::from(line)
}

/// The last line of a server that drains: of the lines that came, it has taken
/// so many, and begun none of the others.
pub(super) fn taken(taken: u64) -> Bytes {
    #[derive(Serialize)]
    struct Taken {
        taken: u64,
    }
    line(&Taken { taken })
}

/// The id of a line that could not be read, if that could.
pub(super) fn id(line: &[u8]) -> Option<Value> {
    #[derive(Default, Deserialize)]
    struct Named {
        id: Option<Value>,
    }
    serde_json::from_slice::<Named>(line).unwrap_or_default().id
}

/// Nobody waits for longer than [`WAIT_MAX`].
fn patient(asked: Asked) -> Result<Vec<Operation>, Problem> {
    let mut operations = asked.into_operations(false)?;
    if operations.is_empty() {
        return Err(Problem::malformed("`operations` is empty".to_owned()));
    }
    for operation in &mut operations {
        match operation {
            Operation::Receive(it) => it.wait = it.wait.min(WAIT_MAX),
            Operation::Acquire(it) => it.wait = it.wait.min(WAIT_MAX),
            _ => {}
        }
    }
    Ok(operations)
}

/// Those of a transaction.
pub(super) fn operations(given: Transaction) -> Result<Vec<Operation>, Problem> {
    patient(Asked::Transact(given))
}

/// What came of a transaction.
pub(super) fn answers(answers: &[Answer]) -> Answers {
    Answers::new(answers, Shown::Readable)
}
