//! Values of columns: atoms, sets and maps of atoms, their JSON and the differences of `update2`.
//!
//! Neighbours: [`crate::schema`] gives the types, [`crate::replica`] keeps datums by row and column,
//! [`crate::txn`] writes them.
//! Threads: plain values, cheap to clone.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{json, Number, Value};

use crate::jsonrpc::excerpt;
use crate::schema::{AtomicType, ColumnType};
use crate::uuid::Uuid;

/// One value.
#[derive(Clone, Debug)]
pub enum Atom {
    /// A signed integer.
    Integer(i64),
    /// A finite double.
    Real(f64),
    /// A truth value.
    Boolean(bool),
    /// A string.
    String(Arc<str>),
    /// A reference to a row, or any other UUID.
    Uuid(Uuid),
}

impl Atom {
    /// The atom's type.
    pub fn ty(&self) -> AtomicType {
        match self {
            Atom::Integer(_) => AtomicType::Integer,
            Atom::Real(_) => AtomicType::Real,
            Atom::Boolean(_) => AtomicType::Boolean,
            Atom::String(_) => AtomicType::String,
            Atom::Uuid(_) => AtomicType::Uuid,
        }
    }

    /// The default value of a type.
    pub fn default_of(ty: AtomicType) -> Atom {
        match ty {
            AtomicType::Integer => Atom::Integer(0),
            AtomicType::Real => Atom::Real(0.0),
            AtomicType::Boolean => Atom::Boolean(false),
            AtomicType::String => Atom::String("".into()),
            AtomicType::Uuid => Atom::Uuid(Uuid::ZERO),
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Atom::String(s) => Some(s),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Atom::Integer(i) => Some(*i),
            _ => None,
        }
    }

    /// The UUID, if it is one.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Atom::Uuid(uuid) => Some(*uuid),
            _ => None,
        }
    }

    /// Parses the JSON of an atom of a known type.
    pub fn from_json(json: &Value, ty: AtomicType) -> Result<Atom, DatumError> {
        let wrong = || DatumError::Atom { wanted: ty.name(), got: excerpt(json) };
        match ty {
            AtomicType::Integer => integer(json).map(Atom::Integer),
            AtomicType::Real => json.as_f64().filter(|r| r.is_finite()).map(|r| Atom::Real(r + 0.0)),
            AtomicType::Boolean => json.as_bool().map(Atom::Boolean),
            AtomicType::String => json.as_str().map(|s| Atom::String(s.into())),
            AtomicType::Uuid => tagged(json, "uuid")
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok())
                .map(Atom::Uuid),
        }
        .ok_or_else(wrong)
    }

    /// The JSON of the atom.
    pub fn to_json(&self) -> Value {
        self.to_json_with(&|_| None)
    }

    /// The JSON of the atom; UUIDs for which `name` has a name become `["named-uuid", name]`.
    pub(crate) fn to_json_with(&self, name: &dyn Fn(Uuid) -> Option<String>) -> Value {
        match self {
            Atom::Integer(i) => json!(i),
            Atom::Real(r) => Number::from_f64(*r).map_or(Value::Null, Value::Number),
            Atom::Boolean(b) => json!(b),
            Atom::String(s) => json!(&**s),
            Atom::Uuid(uuid) => match name(*uuid) {
                Some(name) => json!(["named-uuid", name]),
                None => json!(["uuid", uuid.to_string()]),
            },
        }
    }
}

/// An integer, also when a peer writes it as `1.0`.
fn integer(json: &Value) -> Option<i64> {
    const EXACT: f64 = (1i64 << 53) as f64;
    json.as_i64().or_else(|| {
        let real = json.as_f64().filter(|r| r.fract() == 0.0 && r.abs() <= EXACT)?;
        json.is_f64().then_some(real as i64)
    })
}

/// The second element of `[tag, value]`.
fn tagged<'a>(json: &'a Value, tag: &str) -> Option<&'a Value> {
    match json.as_array()?.as_slice() {
        [Value::String(word), value] if word == tag => Some(value),
        _ => None,
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Atom) -> Ordering {
        match (self, other) {
            (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
            (Atom::Real(a), Atom::Real(b)) => a.total_cmp(b),
            (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
            (Atom::String(a), Atom::String(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            _ => (self.ty() as u8).cmp(&(other.ty() as u8)),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Atom) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Atom) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Atom {}

impl From<i64> for Atom {
    fn from(v: i64) -> Atom {
        Atom::Integer(v)
    }
}

macro_rules! from_small_integer {
    ($($ty:ty)*) => {$(
        impl From<$ty> for Atom {
            fn from(v: $ty) -> Atom {
                Atom::Integer(v.into())
            }
        }
    )*};
}

from_small_integer!(u8 u16 u32 i32);

impl From<f64> for Atom {
    /// Negative zero becomes zero.
    fn from(v: f64) -> Atom {
        Atom::Real(v + 0.0)
    }
}

impl From<bool> for Atom {
    fn from(v: bool) -> Atom {
        Atom::Boolean(v)
    }
}

impl From<&str> for Atom {
    fn from(v: &str) -> Atom {
        Atom::String(v.into())
    }
}

impl From<String> for Atom {
    fn from(v: String) -> Atom {
        Atom::String(v.into())
    }
}

impl From<&String> for Atom {
    fn from(v: &String) -> Atom {
        Atom::String(v.as_str().into())
    }
}

impl From<Arc<str>> for Atom {
    fn from(v: Arc<str>) -> Atom {
        Atom::String(v)
    }
}

impl From<Uuid> for Atom {
    fn from(v: Uuid) -> Atom {
        Atom::Uuid(v)
    }
}

/// A value that does not fit its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatumError {
    /// An atom of another type.
    #[error("expected {wanted}, got {got}")]
    Atom {
        /// What the column holds.
        wanted: &'static str,
        /// The start of what came.
        got: String,
    },
    /// No set or map where there must be one.
    #[error("expected {wanted}, got {got}")]
    Shape {
        /// "set", "map" or "pair".
        wanted: &'static str,
        /// The start of what came.
        got: String,
    },
    /// An element or key that occurs twice.
    #[error("{0} contains duplicate")]
    Duplicate(&'static str),
    /// Too few or too many elements.
    #[error("{count} elements where {min} to {max} are allowed")]
    Count {
        /// How many there are.
        count: usize,
        /// How many there must be.
        min: u32,
        /// How many there may be.
        max: u32,
    },
    /// A string that the server cannot parse, for which it would end the connection.
    #[error("a string must not contain null bytes")]
    NullByte,
    /// A real that JSON cannot carry.
    #[error("a real must be finite")]
    NotFinite,
}

/// The value of one column of one row. Elements are sorted and unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// A set; a scalar is a set of one, an absent optional value a set of none.
    Set(Vec<Atom>),
    /// A map, sorted by key.
    Map(Vec<(Atom, Atom)>),
}

impl Default for Datum {
    fn default() -> Datum {
        Datum::EMPTY
    }
}

impl Datum {
    /// The empty set.
    pub const EMPTY: Datum = Datum::Set(Vec::new());

    /// A set of the given atoms; duplicates collapse.
    pub fn set<A: Into<Atom>>(atoms: impl IntoIterator<Item = A>) -> Datum {
        let mut atoms: Vec<Atom> = atoms.into_iter().map(Into::into).collect();
        atoms.sort();
        atoms.dedup();
        Datum::Set(atoms)
    }

    /// A map of the given pairs; the last of equal keys wins.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Datum {
        let map: BTreeMap<Atom, Atom> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Datum::Map(map.into_iter().collect())
    }

    /// The value of a column that nobody has set.
    pub fn default_of(ty: &ColumnType) -> Datum {
        match ty.value {
            None if ty.min == 0 => Datum::Set(Vec::new()),
            None => Datum::Set(vec![Atom::default_of(ty.key)]),
            Some(_) if ty.min == 0 => Datum::Map(Vec::new()),
            Some(value) => Datum::Map(vec![(Atom::default_of(ty.key), Atom::default_of(value))]),
        }
    }

    /// Number of elements or pairs.
    pub fn len(&self) -> usize {
        match self {
            Datum::Set(set) => set.len(),
            Datum::Map(map) => map.len(),
        }
    }

    /// True without elements or pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a set; none for a map.
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Datum::Set(set) => set,
            Datum::Map(_) => &[],
        }
    }

    /// The pairs of a map; none for a set.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match self {
            Datum::Set(_) => &[],
            Datum::Map(map) => map,
        }
    }

    /// The only atom of a scalar or of an optional value that is there.
    pub fn scalar(&self) -> Option<&Atom> {
        match self.atoms() {
            [atom] => Some(atom),
            _ => None,
        }
    }

    /// The value of a string key in a map.
    pub fn get(&self, key: &str) -> Option<&Atom> {
        let Datum::Map(map) = self else {
            return None;
        };
        let found = map.binary_search_by(|(k, _)| match k {
            Atom::String(s) => (**s).cmp(key),
            other => (other.ty() as u8).cmp(&(AtomicType::String as u8)),
        });
        found.ok().map(|i| &map[i].1)
    }

    /// Parses a whole value. The number of elements is not checked: see [`Datum::check`].
    pub fn from_json(json: &Value, ty: &ColumnType) -> Result<Datum, DatumError> {
        let Some(value_type) = ty.value else {
            return Datum::set_from_json(json, ty.key);
        };
        let shape = |wanted, json| DatumError::Shape { wanted, got: excerpt(json) };
        let pairs = tagged(json, "map").and_then(Value::as_array).ok_or_else(|| shape("map", json))?;
        let mut map = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let Some([key, value]) = pair.as_array().map(Vec::as_slice) else {
                return Err(shape("pair", pair));
            };
            map.push((Atom::from_json(key, ty.key)?, Atom::from_json(value, value_type)?));
        }
        map.sort_by(|(a, _), (b, _)| a.cmp(b));
        if map.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err(DatumError::Duplicate("map"));
        }
        Ok(Datum::Map(map))
    }

    fn set_from_json(json: &Value, ty: AtomicType) -> Result<Datum, DatumError> {
        let Some(elements) = tagged(json, "set").and_then(Value::as_array) else {
            return Ok(Datum::Set(vec![Atom::from_json(json, ty)?]));
        };
        let mut set = elements.iter().map(|e| Atom::from_json(e, ty)).collect::<Result<Vec<_>, _>>()?;
        set.sort();
        if set.windows(2).any(|w| w[0] == w[1]) {
            return Err(DatumError::Duplicate("set"));
        }
        Ok(Datum::Set(set))
    }

    /// The JSON of the value.
    pub fn to_json(&self) -> Value {
        self.to_json_with(&|_| None)
    }

    pub(crate) fn to_json_with(&self, name: &dyn Fn(Uuid) -> Option<String>) -> Value {
        match self {
            Datum::Set(set) => match set.as_slice() {
                [atom] => atom.to_json_with(name),
                atoms => json!(["set", atoms.iter().map(|a| a.to_json_with(name)).collect::<Vec<_>>()]),
            },
            Datum::Map(map) => {
                let pairs: Vec<Value> =
                    map.iter().map(|(k, v)| json!([k.to_json_with(name), v.to_json_with(name)])).collect();
                json!(["map", pairs])
            }
        }
    }

    /// Checks a value against a column's type before it is sent.
    pub fn check(&self, ty: &ColumnType) -> Result<(), DatumError> {
        self.check_types(ty)?;
        let count = self.len();
        if count < ty.min as usize || count > ty.max as usize {
            return Err(DatumError::Count { count, min: ty.min, max: ty.max });
        }
        Ok(())
    }

    /// Checks shape and atoms but not the number of elements.
    pub(crate) fn check_types(&self, ty: &ColumnType) -> Result<(), DatumError> {
        let atom = |atom: &Atom, ty: AtomicType| match atom {
            Atom::Real(r) if !r.is_finite() => Err(DatumError::NotFinite),
            Atom::String(s) if s.contains('\0') => Err(DatumError::NullByte),
            atom if atom.ty() == ty => Ok(()),
            atom => Err(DatumError::Atom { wanted: ty.name(), got: excerpt(&atom.to_json()) }),
        };
        match (self, ty.value) {
            (Datum::Set(set), None) => set.iter().try_for_each(|a| atom(a, ty.key)),
            (Datum::Map(map), Some(value)) => {
                map.iter().try_for_each(|(k, v)| atom(k, ty.key).and_then(|()| atom(v, value)))
            }
            // An empty set stands for an empty map too, so that callers can clear any column alike.
            (Datum::Set(set), Some(_)) if set.is_empty() => Ok(()),
            (Datum::Set(_), Some(_)) => {
                Err(DatumError::Shape { wanted: "map", got: excerpt(&self.to_json()) })
            }
            (Datum::Map(_), None) => Err(DatumError::Shape { wanted: "set", got: excerpt(&self.to_json()) }),
        }
    }

    /// The value as a column of that type holds it: an empty set becomes an empty map where one belongs.
    pub(crate) fn shaped(self, ty: &ColumnType) -> Datum {
        match self {
            Datum::Set(set) if set.is_empty() && ty.value.is_some() => Datum::Map(Vec::new()),
            other => other,
        }
    }

    /// Applies the difference that `update2` carries for a modified column.
    pub fn apply_diff(&self, diff: Datum, ty: &ColumnType) -> Datum {
        match (self, diff) {
            (_, diff) if ty.max == 1 => diff,
            (Datum::Set(old), Datum::Set(diff)) => {
                let mut set: Vec<Atom> =
                    old.iter().filter(|a| diff.binary_search(a).is_err()).cloned().collect();
                set.extend(diff.into_iter().filter(|a| old.binary_search(a).is_err()));
                set.sort();
                Datum::Set(set)
            }
            (Datum::Map(old), Datum::Map(diff)) => {
                let mut map: BTreeMap<Atom, Atom> = old.iter().cloned().collect();
                for (key, value) in diff {
                    if map.get(&key) == Some(&value) {
                        map.remove(&key);
                    } else {
                        map.insert(key, value);
                    }
                }
                Datum::Map(map.into_iter().collect())
            }
            (_, diff) => diff,
        }
    }
}

impl<A: Into<Atom>> From<A> for Datum {
    fn from(atom: A) -> Datum {
        Datum::Set(vec![atom.into()])
    }
}

impl<A: Into<Atom>> From<Option<A>> for Datum {
    fn from(atom: Option<A>) -> Datum {
        Datum::set(atom)
    }
}

impl<A: Into<Atom>> From<Vec<A>> for Datum {
    fn from(atoms: Vec<A>) -> Datum {
        Datum::set(atoms)
    }
}

impl<K: Into<Atom>, V: Into<Atom>> From<BTreeMap<K, V>> for Datum {
    fn from(map: BTreeMap<K, V>) -> Datum {
        Datum::map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    fn any_atom(ty: AtomicType) -> BoxedStrategy<Atom> {
        match ty {
            AtomicType::Integer => prop_oneof![any::<i64>(), -4i64..4].prop_map(Atom::Integer).boxed(),
            AtomicType::Real => (-1.0e9..1.0e9f64).prop_map(Atom::from).boxed(),
            AtomicType::Boolean => any::<bool>().prop_map(Atom::Boolean).boxed(),
            AtomicType::String => prop_oneof![".{0,6}", "[ab]{0,2}", Just("set".into()), Just("map".into())]
                .prop_map(|s: String| Atom::from(s))
                .boxed(),
            AtomicType::Uuid => {
                prop_oneof![any::<u128>(), 0u128..4].prop_map(|v| Atom::Uuid(Uuid(v))).boxed()
            }
        }
    }

    fn any_type() -> impl Strategy<Value = AtomicType> {
        prop::sample::select(vec![
            AtomicType::Integer,
            AtomicType::Real,
            AtomicType::Boolean,
            AtomicType::String,
            AtomicType::Uuid,
        ])
    }

    fn any_datum(ty: ColumnType) -> BoxedStrategy<Datum> {
        match ty.value {
            None => btree_set(any_atom(ty.key), 0..5).prop_map(Datum::set).boxed(),
            Some(value) => btree_map(any_atom(ty.key), any_atom(value), 0..5).prop_map(Datum::map).boxed(),
        }
    }

    fn any_typed_pair() -> impl Strategy<Value = (ColumnType, Datum, Datum)> {
        (any_type(), proptest::option::of(any_type())).prop_flat_map(|(key, value)| {
            let ty = ColumnType { key, value, min: 0, max: u32::MAX };
            (Just(ty), any_datum(ty), any_datum(ty))
        })
    }

    /// The difference as the server makes it, the slow way.
    fn diff(old: &Datum, new: &Datum) -> Datum {
        match (old, new) {
            (Datum::Set(old), Datum::Set(new)) => Datum::set(
                old.iter()
                    .filter(|a| !new.contains(a))
                    .chain(new.iter().filter(|a| !old.contains(a)))
                    .cloned(),
            ),
            _ => {
                let (old, new) = (old.pairs(), new.pairs());
                let gone = old.iter().filter(|(k, _)| !new.iter().any(|(n, _)| n == k));
                let fresh = new.iter().filter(|pair| !old.contains(pair));
                Datum::map(gone.chain(fresh).cloned())
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn json_round_trip((ty, datum, _) in any_typed_pair()) {
            let text = datum.to_json().to_string();
            let back = Datum::from_json(&serde_json::from_str(&text).unwrap(), &ty).unwrap();
            prop_assert_eq!(&back, &datum);
            prop_assert!(matches!(back.check(&ty), Ok(()) | Err(DatumError::NullByte)));
        }

        #[test]
        fn difference_leads_from_old_to_new((ty, old, new) in any_typed_pair()) {
            prop_assert_eq!(old.apply_diff(diff(&old, &new), &ty), new);
        }

        #[test]
        fn get_finds_what_is_there(map in btree_map("[ab]{0,2}", "[ab]{0,2}", 0..6), key in "[ab]{0,2}") {
            let datum = Datum::from(map.clone());
            prop_assert_eq!(datum.get(&key).and_then(Atom::as_str), map.get(&key).map(String::as_str));
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        use AtomicType::*;
        let bad = [
            (json!("x"), ColumnType::scalar(Integer)),
            (json!(1.5), ColumnType::scalar(Integer)),
            (json!(18446744073709551615u64), ColumnType::scalar(Integer)),
            (json!(null), ColumnType::scalar(String)),
            (json!(["uuid", "x"]), ColumnType::scalar(Uuid)),
            (json!(["set"]), ColumnType::set(Integer)),
            (json!(["set", [1, 1]]), ColumnType::set(Integer)),
            (json!(["set", [1, "a"]]), ColumnType::set(Integer)),
            (json!(["set", 3]), ColumnType::set(Integer)),
            (json!(["set", []]), ColumnType::map(Integer, Integer)),
            (json!(["map", [[1]]]), ColumnType::map(Integer, Integer)),
            (json!(["map", [[1, 2], [1, 3]]]), ColumnType::map(Integer, Integer)),
        ];
        for (json, ty) in bad {
            assert!(Datum::from_json(&json, &ty).is_err(), "{json}");
        }
        let int = |json| Datum::from_json(&json, &ColumnType::scalar(Integer)).unwrap();
        assert_eq!(int(json!(3.0)), Datum::from(3));
        assert_eq!(int(json!(i64::MIN)), Datum::from(i64::MIN));
        assert_eq!(Datum::from(f64::NAN).check(&ColumnType::scalar(Real)), Err(DatumError::NotFinite));
        assert_eq!(Datum::from("a\0b").check(&ColumnType::scalar(String)), Err(DatumError::NullByte));
        assert!(Datum::EMPTY.check(&ColumnType::scalar(Integer)).is_err());
        assert!(Datum::EMPTY.check(&ColumnType::map(String, String)).is_ok());
        assert!(Datum::from("x").check(&ColumnType::map(String, String)).is_err());
    }
}
