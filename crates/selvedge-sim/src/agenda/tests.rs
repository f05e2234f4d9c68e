use selvedge_patterns::random::{Rng, SplitMix64};

use super::Agenda;

#[test]
fn entries_come_out_by_time_then_by_order_of_scheduling() {
    for lanes in [&[][..], &[7][..], &[0, 3, 7, 1000][..]] {
        let mut rng = SplitMix64::new(11);
        let mut agenda = Agenda::default();
        for delay in lanes {
            agenda.open_lane(*delay);
        }
        let mut model: Vec<(u64, u64)> = Vec::new();
        let mut now = 0;
        for what in 0..20_000 {
            let delay = [0, 1, 3, 7, 1000, rng.below(5000)][rng.below(6) as usize];
            agenda.push(now, now + delay, what);
            model.push((now + delay, what));
            if rng.below(3) > 0 {
                let expected = *model.iter().min().unwrap();
                model.retain(|entry| *entry != expected);
                let got = agenda.pop().unwrap();
                assert_eq!((got.at, got.what), expected, "with lanes {lanes:?}");
                now = got.at;
                if model.len() > 300 {
                    break;
                }
            }
        }
        model.sort_unstable();
        for expected in model {
            let got = agenda.pop().unwrap();
            assert_eq!((got.at, got.what), expected);
        }
        assert!(agenda.pop().is_none());
        assert_eq!(agenda.len(), 0);
    }
}
