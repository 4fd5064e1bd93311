//! How far a partition has come at a target.

use std::collections::VecDeque;

/// The batches of one partition at one target. Their sequences only grow, and those in blocks on
/// disk are older than those in memory.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Everything up to here was accepted or given up.
    acked: Option<u64>,
    /// Blocks on disk (one being sent among them) that hold batches not yet settled.
    blocks: usize,
    /// Some are in a request.
    flying: bool,
    /// Reached behind that request: counts once it has ended.
    behind: Option<u64>,
    /// Batches in memory, and those settled behind a pending one, in order; whether each is settled.
    memory: VecDeque<(u64, bool)>,
}

impl Progress {
    /// As a file tells it.
    pub fn resumed(acked: Option<u64>) -> Progress {
        Progress { acked, ..Progress::default() }
    }

    /// The sequence up to which everything was accepted or given up.
    pub fn acked(&self) -> Option<u64> {
        self.acked
    }

    /// A batch is queued in memory.
    pub fn queued(&mut self, sequence: u64) {
        self.memory.push_back((sequence, false));
    }

    /// A batch has nothing to write: it is settled in its turn.
    pub fn nothing(&mut self, sequence: u64) {
        match self.memory.back_mut() {
            Some((last, true)) => *last = sequence,
            _ => self.memory.push_back((sequence, true)),
        }
        self.advance();
    }

    /// A batch in memory was accepted or given up.
    pub fn settled(&mut self, sequence: u64) {
        if let Some(batch) = self.memory.iter_mut().find(|(have, _)| *have == sequence) {
            batch.1 = true;
        }
        self.advance();
    }

    /// Batches up to this one are in a block on disk now.
    pub fn moved(&mut self, sequence: u64) {
        while self.memory.front().is_some_and(|(first, _)| *first <= sequence) {
            self.memory.pop_front();
        }
    }

    /// There is one more block.
    pub fn block(&mut self) {
        self.blocks += 1;
    }

    /// The oldest block is settled, and with it everything up to this sequence (`None`: its
    /// sequences are not ours).
    pub fn block_settled(&mut self, sequence: Option<u64>) {
        if self.flying {
            self.behind = self.behind.max(sequence);
        } else {
            self.reached(sequence);
        }
        self.blocks = self.blocks.saturating_sub(1);
        self.advance();
    }

    /// Everything up to this sequence is settled, wherever it is.
    pub fn reached(&mut self, sequence: Option<u64>) {
        self.acked = self.acked.max(sequence);
    }

    /// A request with batches of it begins.
    pub fn takes_off(&mut self) {
        self.flying = true;
    }

    /// The request has ended; what became of its batches is told after this.
    pub fn lands(&mut self) {
        self.flying = false;
    }

    /// The request was given up; its batches wait again.
    pub fn put_back(&mut self) {
        self.flying = false;
        self.behind = None;
    }

    fn advance(&mut self) {
        if !self.flying {
            self.acked = self.acked.max(self.behind.take());
        }
        if self.blocks > 0 || self.flying {
            return;
        }
        while let Some((sequence, true)) = self.memory.front() {
            self.acked = self.acked.max(Some(*sequence));
            self.memory.pop_front();
        }
    }
}
