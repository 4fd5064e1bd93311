//! Small streaming statistics: arithmetic that gives the same bits on every machine.
//!
//! Only `+ - * /`, square roots (exactly rounded by IEEE 754) and `libm` are used, in a fixed order.

pub mod bf16;
pub mod count;
pub mod histogram;
pub mod interval;
pub mod math;
pub mod moments;
pub mod period;
pub mod season;
pub mod steps;
pub mod tail;
