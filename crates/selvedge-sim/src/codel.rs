//! Controlled delay, as a simulated server's queue may use it.
//!
//! Source: RFC 8289. Dropping starts when the wait has stayed above `target`
//! for `interval`, and the next drop comes after interval/√count.

/// State of one queue. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CoDel {
    first_above: Option<u64>,
    dropping: bool,
    next_drop: u64,
    count: u32,
    last_count: u32,
}

impl CoDel {
    /// Whether the request that is about to leave the queue, having waited
    /// `waited`, is dropped instead of served.
    pub(crate) fn drops(
        &mut self,
        now: u64,
        waited: u64,
        last_in_queue: bool,
        target: u64,
        interval: u64,
    ) -> bool {
        let ok_to_drop = self.ok_to_drop(now, waited, last_in_queue, target, interval);
        if self.dropping {
            if !ok_to_drop {
                self.dropping = false;
                return false;
            }
            if now < self.next_drop {
                return false;
            }
            self.count += 1;
            self.next_drop = control_law(self.next_drop, interval, self.count);
            return true;
        }
        if !ok_to_drop {
            return false;
        }
        self.dropping = true;
        // Having dropped recently, go on where it left off.
        let delta = self.count.saturating_sub(self.last_count);
        let recent = now.saturating_sub(self.next_drop) < 16 * interval;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.next_drop = control_law(now, interval, self.count);
        self.last_count = self.count;
        true
    }

    fn ok_to_drop(
        &mut self,
        now: u64,
        waited: u64,
        last_in_queue: bool,
        target: u64,
        interval: u64,
    ) -> bool {
        if waited < target || last_in_queue {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + interval);
                false
            }
            Some(at) => now >= at,
        }
    }
}

fn control_law(from: u64, interval: u64, count: u32) -> u64 {
    from + (interval as f64 / libm::sqrt(f64::from(count))) as u64
}

#[cfg(test)]
mod tests;
