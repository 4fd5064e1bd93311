//! The binary form of seasons.

use super::{Keeper, Other, Seasonal};
use crate::codec::{Damaged, Reader, Stored, stored};

stored!(struct Keeper { held, retry });
stored!(struct Seasonal {
    anchor,
    started,
    first,
    second,
    plain,
    with,
    kept,
    residuals,
    other,
});

impl Stored for Other {
    fn store(&self, to: &mut Vec<u8>) {
        match self {
            Other::Later(when) => {
                to.push(0);
                when.store(to);
            }
            Other::Sought(search) => {
                to.push(1);
                search.store(to);
            }
            Other::Found(found) => {
                to.push(2);
                found.store(to);
            }
        }
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match from.array()? {
            [0] => Stored::load(from).map(Other::Later),
            [1] => Stored::load(from).map(Other::Sought),
            [2] => Stored::load(from).map(Other::Found),
            _ => Err(from.damaged("no season of another period")),
        }
    }
}
