//! A slab: values at stable small indices, in chunks that never move, so that growing copies nothing.

const CHUNK: usize = 16;

/// Values by index; freed indices are used again.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Box<[Option<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Values held.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// One past the largest index ever used.
    pub fn bound(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }
    /// The value at an index.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.chunks.get(at as usize / CHUNK)?[at as usize % CHUNK].as_ref()
    }
    /// The value at an index, to change.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.chunks.get_mut(at as usize / CHUNK)?[at as usize % CHUNK].as_mut()
    }
    /// Stores a value and says where.
    pub fn insert(&mut self, value: T) -> u32 {
        if self.free.is_empty() {
            let from = self.bound();
            self.chunks.push((0..CHUNK).map(|_| None).collect());
            self.free.extend((from..from + CHUNK as u32).rev());
        }
        let at = self.free.pop().unwrap_or_default();
        self.chunks[at as usize / CHUNK][at as usize % CHUNK] = Some(value);
        self.len += 1;
        at
    }
    /// Takes a value out.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.chunks.get_mut(at as usize / CHUNK)?[at as usize % CHUNK].take()?;
        self.free.push(at);
        self.len -= 1;
        if self.len == 0 {
            *self = Slab::default();
        }
        Some(value)
    }
    /// Indices and values, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        slots.enumerate().filter_map(|(at, slot)| Some((at as u32, slot.as_ref()?)))
    }
    /// Bytes of the slab itself, whatever its values hold on the heap.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Option<T>>()
            + self.chunks.capacity() * size_of::<Box<[Option<T>]>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_stable_and_reused() {
        let mut slab = Slab::default();
        let at: Vec<u32> = (0..40).map(|i| slab.insert(i)).collect();
        assert_eq!(at, (0..40).collect::<Vec<_>>());
        assert_eq!(slab.remove(7), Some(7));
        assert_eq!((slab.remove(7), slab.len()), (None, 39));
        assert_eq!(slab.get(7), None);
        assert_eq!(slab.insert(70), 7);
        assert_eq!(slab.iter().map(|(_, v)| *v).sum::<i32>(), (0..40).sum::<i32>() + 63);
        assert_eq!(slab.get(1000), None);
        for i in 0..40 {
            slab.remove(i);
        }
        assert_eq!((slab.len(), slab.bound()), (0, 0), "an empty slab holds no memory");
    }
}
