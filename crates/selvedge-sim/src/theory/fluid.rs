//! The retry storm as a fluid: twenty lines that predict on which side of the
//! cliff an outage ends, to be held against every simulated boundary.
//!
//! Offered λ, capacity C, first-in first-out, callers that leave after τ and
//! come back after a pause up to R times, a server that does not notice. With
//! cumulative arrivals A and service S, what was sent at t−τ is sent again iff
//! it has not been served yet: A(t−τ) > S(t).

/// The parameters of the model; rates per second, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storm {
    /// First tries per second.
    pub offered: f64,
    /// Served per second.
    pub capacity: f64,
    /// How long a caller waits for an answer.
    pub timeout: f64,
    /// How often a caller comes back at most; 15 are modelled.
    pub retries: u32,
    /// How long it takes them to come back.
    pub pause: f64,
    /// Waiting room; infinite for none.
    pub queue: f64,
}

/// How the fluid run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ending {
    /// Seconds after the outage at which the backlog fell under what can be
    /// answered in time, if it did.
    pub recovers_after: Option<f64>,
    /// The backlog at the end.
    pub backlog: f64,
}

impl Storm {
    /// Integrates through an outage of `outage` seconds and `after` seconds more.
    #[must_use]
    pub fn run(&self, outage: f64, after: f64) -> Ending {
        self.through(outage, 0.0, after)
    }

    /// The same where a share of the capacity is `left` during the outage, 0 to 1.
    #[must_use]
    pub fn through(&self, outage: f64, left: f64, after: f64) -> Ending {
        let step = (self.timeout / 200.0).min(0.01);
        let steps = ((outage + after) / step) as usize + 1;
        let lag = libm::round(self.timeout / step) as usize;
        let pause = libm::round(self.pause / step) as usize;
        let generations = self.retries.min(15) as usize + 1;
        // How much of each generation of attempts arrived in each step, and
        // where in the cumulative order of arrivals that step ended.
        let mut arrived: Vec<f64> = Vec::with_capacity(steps * generations);
        let mut total_after: Vec<f64> = Vec::with_capacity(steps);
        // Of what was sent one timeout before each step, how much still waited then.
        let mut unserved: Vec<f64> = Vec::with_capacity(steps);
        let (mut cumulative, mut served) = (0.0f64, 0.0f64);
        let mut recovers_after = None;
        for i in 0..steps {
            let now = i as f64 * step;
            let mut row = [0.0f64; 16];
            row[0] = self.offered * step;
            let late = i.checked_sub(lag).map_or(0.0, |sent| {
                let upper = total_after[sent];
                let lower = if sent == 0 { 0.0 } else { total_after[sent - 1] };
                if upper <= lower {
                    0.0
                } else {
                    ((upper - served) / (upper - lower)).clamp(0.0, 1.0)
                }
            });
            unserved.push(late);
            if let Some(sent) = i.checked_sub(lag + pause) {
                for generation in 1..generations {
                    row[generation] =
                        arrived[sent * generations + generation - 1] * unserved[sent + lag];
                }
            }
            let coming: f64 = row.iter().sum();
            // A full waiting room turns the rest away; refused at once, they are lost here.
            let room = (self.queue - (cumulative - served)).max(0.0);
            let admitted = if coming > room { room / coming } else { 1.0 };
            arrived.extend(row[..generations].iter().map(|part| part * admitted));
            cumulative += coming * admitted;
            total_after.push(cumulative);
            let rate = if now < outage { self.capacity * left } else { self.capacity };
            served = (served + rate * step).min(cumulative);
            if now >= outage
                && recovers_after.is_none()
                && cumulative - served <= 0.05 * self.capacity * self.timeout
            {
                recovers_after = Some(now - outage);
            }
        }
        Ending { recovers_after, backlog: cumulative - served }
    }

    /// The shortest outage, in seconds, that the system does not come back
    /// from within `within`; `None` if it comes back from every one up to `longest`.
    #[must_use]
    pub fn threshold(&self, longest: f64, within: f64) -> Option<f64> {
        if self.run(longest, within).recovers_after.is_some() {
            return None;
        }
        let (mut low, mut high) = (0.0, longest);
        while high - low > longest / 2000.0 {
            let middle = (low + high) / 2.0;
            if self.run(middle, within).recovers_after.is_some() {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some((low + high) / 2.0)
    }

    /// Whether collapse can sustain itself: λ(1+R) > C and more may queue than
    /// is answered in time.
    #[must_use]
    pub fn vulnerable(&self) -> bool {
        super::storm_possible(
            self.offered,
            self.capacity,
            f64::from(self.retries),
            self.timeout,
            self.queue,
        )
    }
}
