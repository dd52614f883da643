//! Puzzles of responders under attack (RFC 8019) are solved by a thread, one after another: the
//! loop goes on meanwhile.

use std::sync::mpsc::{Sender, channel};

use obol_ike::event::{Answer, AskId, Puzzle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{info, warn};

/// The thread, which is there once there was a puzzle.
pub(super) struct Puzzles {
    work: Option<Sender<Work>>,
    /// Kept so that waiting for solutions never ends by itself.
    sender: UnboundedSender<(AskId, Answer)>,
    solutions: UnboundedReceiver<(AskId, Answer)>,
}

/// One puzzle.
struct Work {
    id: AskId,
    puzzle: Puzzle,
    cookie: Vec<u8>,
}

impl Puzzles {
    /// Without thread.
    pub(super) fn new() -> Self {
        let (sender, solutions) = unbounded_channel();
        Self {
            work: None,
            sender,
            solutions,
        }
    }

    /// Has one solved. There is at most one for each IKE SA that is being begun.
    pub(super) fn solve(&mut self, id: AskId, puzzle: Puzzle, cookie: Vec<u8>) {
        info!(
            difficulty = puzzle.difficulty,
            "a peer under attack asks for a puzzle to be solved"
        );
        let work = Work { id, puzzle, cookie };
        let refused = match self.worker() {
            Some(worker) => worker.send(work).err().map(|refused| refused.0.id),
            None => Some(id),
        };
        // Without solution, the peer may take us all the same.
        if let Some(id) = refused {
            let _ = self.sender.send((id, Answer::Puzzle(None)));
        }
    }

    /// The next solution; cancel safe.
    pub(super) async fn solved(&mut self) -> Option<(AskId, Answer)> {
        self.solutions.recv().await
    }

    fn worker(&mut self) -> Option<&Sender<Work>> {
        if self.work.is_none() {
            let (work, puzzles) = channel::<Work>();
            let solutions = self.sender.clone();
            let started = std::thread::Builder::new()
                .name("obol-puzzles".to_owned())
                .spawn(move || {
                    for Work { id, puzzle, cookie } in puzzles {
                        let solution = puzzle.solve(&cookie);
                        if solutions.send((id, Answer::Puzzle(solution))).is_err() {
                            return;
                        }
                    }
                });
            match started {
                Ok(_) => self.work = Some(work),
                Err(error) => warn!(%error, "no thread to solve puzzles with"),
            }
        }
        self.work.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use obol_ike::wire::PrfId;

    use super::*;

    #[tokio::test]
    async fn solutions_come_back_with_their_numbers() {
        let mut puzzles = Puzzles::new();
        let puzzle = Puzzle {
            prf: PrfId::HMAC_SHA2_256,
            difficulty: 5,
        };
        for id in [3, 4] {
            puzzles.solve(AskId(id), puzzle, vec![7; 36]);
        }
        for id in [3, 4] {
            let (answered, answer) = puzzles.solved().await.expect("the sender is kept");
            assert_eq!(answered, AskId(id));
            assert!(matches!(answer, Answer::Puzzle(Some(_))), "{answer:?}");
        }
    }
}
