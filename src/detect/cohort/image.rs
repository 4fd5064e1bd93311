//! The binary form of cohorts. A model that several of them lend is stored once, in a table.

use super::{COHORTS, Cohorts, Group, MEMBERS, Member, Model, Prior, Priors};
use crate::codec::{Damaged, Reader, Stored, store_count, stored};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

stored!(plain struct Member { hash, level, scale });
stored!(struct Group { series, members } valid |group| group.members.len() <= MEMBERS);

/// Models that cohorts lend, each once.
#[derive(Debug, Default)]
pub struct Donors {
    models: Vec<Arc<Model>>,
    /// Their places, by where they are in memory.
    places: HashMap<usize, usize>,
}

impl Donors {
    /// Appends the place of a model in the table, which is entered there where it is new.
    pub fn store_place(&mut self, model: &Arc<Model>, to: &mut Vec<u8>) {
        let next = self.models.len();
        let place = *self.places.entry(Arc::as_ptr(model).addr()).or_insert(next);
        if place == next {
            self.models.push(model.clone());
        }
        store_count(place, to);
    }

    /// The model whose place comes next.
    fn load_place(&self, from: &mut Reader<'_>) -> Result<Arc<Model>, Damaged> {
        let place = from.number()?;
        let model = usize::try_from(place).ok().and_then(|place| self.models.get(place));
        model.cloned().ok_or_else(|| from.damaged("a model that is not in the table"))
    }

    /// Appends the table; what refers to it comes after it.
    pub fn store(&self, to: &mut Vec<u8>) {
        store_count(self.models.len(), to);
        self.models.iter().for_each(|model| model.store(to));
    }

    /// Reads the table.
    ///
    /// # Errors
    /// It is damaged.
    pub fn load(from: &mut Reader<'_>) -> Result<Donors, Damaged> {
        let models = Vec::<Model>::load(from)?.into_iter().map(Arc::new).collect();
        Ok(Donors { models, places: HashMap::new() })
    }
}

impl Cohorts {
    /// Appends what was told; `donor` appends a model, or where it is.
    pub fn store(&self, to: &mut Vec<u8>, mut donor: impl FnMut(&Arc<Model>, &mut Vec<u8>)) {
        let Cohorts { groups, donors, refused } = self;
        groups.store(to);
        store_count(donors.len(), to);
        for (cohort, (hash, model)) in donors {
            cohort.store(to);
            hash.store(to);
            donor(model, to);
        }
        refused.store(to);
    }

    /// Reads what was told, with the models of a table.
    ///
    /// # Errors
    /// It is damaged.
    pub fn load(from: &mut Reader<'_>, table: &Donors) -> Result<Cohorts, Damaged> {
        let groups: BTreeMap<u64, Group> = Stored::load(from)?;
        from.check(groups.len() <= COHORTS, "more cohorts than are kept")?;
        let mut donors = BTreeMap::new();
        for _ in 0..from.count()? {
            donors.insert(u64::load(from)?, (u64::load(from)?, table.load_place(from)?));
        }
        Ok(Cohorts { groups, donors, refused: Stored::load(from)? })
    }
}

/// Epochs are hours since 1970: far beyond any time there is.
pub(crate) const EPOCHS: std::ops::RangeInclusive<i64> = -(1 << 42)..=1 << 42;

impl Priors {
    /// Appends what cohorts lend; models go to the table.
    pub fn store(&self, to: &mut Vec<u8>, donors: &mut Donors) {
        let Priors { by_cohort, refused } = self;
        refused.store(to);
        store_count(by_cohort.len(), to);
        for (cohort, prior) in by_cohort {
            let Prior { epoch, donor, centre, between, series, members, drift, alike } = prior;
            cohort.store(to);
            epoch.store(to);
            donors.store_place(donor, to);
            centre.store(to);
            between.store(to);
            series.store(to);
            store_count(*members, to);
            drift.store(to);
            alike.store(to);
        }
    }

    /// Reads what cohorts lend, with the models of a table.
    ///
    /// # Errors
    /// It is damaged.
    pub fn load(from: &mut Reader<'_>, donors: &Donors) -> Result<Priors, Damaged> {
        from.plain(|from| {
            let refused = Stored::load(from)?;
            let count = from.count()?;
            from.check(count <= COHORTS, "more cohorts than lend")?;
            let mut by_cohort = BTreeMap::new();
            for _ in 0..count {
                let cohort = u64::load(from)?;
                let prior = Prior {
                    epoch: Stored::load(from)?,
                    donor: donors.load_place(from)?,
                    centre: Stored::load(from)?,
                    between: Stored::load(from)?,
                    series: Stored::load(from)?,
                    members: from.number()? as usize,
                    drift: Stored::load(from)?,
                    alike: Stored::load(from)?,
                };
                from.check(EPOCHS.contains(&prior.epoch) && prior.members <= MEMBERS, "no such prior")?;
                by_cohort.insert(cohort, prior);
            }
            Ok(Priors { by_cohort, refused })
        })
    }
}
