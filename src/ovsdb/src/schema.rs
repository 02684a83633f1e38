//! The database schema as the server reports it: which tables and columns there are, of what types.
//!
//! Neighbours: [`crate::datum`] parses values against [`ColumnType`], [`crate::replica`] checks that
//! what the client asks for exists. Constraints on values (enums, ranges, references) are the server's
//! to enforce and are not kept.
//! Threads: plain values.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::jsonrpc::excerpt;

/// The type of one atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicType {
    /// A signed 64-bit integer.
    Integer,
    /// A double.
    Real,
    /// `true` or `false`.
    Boolean,
    /// A UTF-8 string.
    String,
    /// A row, or any other UUID.
    Uuid,
}

impl AtomicType {
    /// The word of the schema for this type.
    pub fn name(self) -> &'static str {
        match self {
            AtomicType::Integer => "integer",
            AtomicType::Real => "real",
            AtomicType::Boolean => "boolean",
            AtomicType::String => "string",
            AtomicType::Uuid => "uuid",
        }
    }

    fn from_name(name: &str) -> Option<AtomicType> {
        Some(match name {
            "integer" => AtomicType::Integer,
            "real" => AtomicType::Real,
            "boolean" => AtomicType::Boolean,
            "string" => AtomicType::String,
            "uuid" => AtomicType::Uuid,
            _ => return None,
        })
    }
}

/// The type of a column: a set of `key`, or a map from `key` to `value`, of `min` to `max` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Type of the elements, or of the keys.
    pub key: AtomicType,
    /// Type of the values of a map; none for a set.
    pub value: Option<AtomicType>,
    /// 0 or 1.
    pub min: u32,
    /// At least 1; `u32::MAX` is "unlimited".
    pub max: u32,
}

impl ColumnType {
    /// Exactly one atom of this type.
    pub const fn scalar(key: AtomicType) -> ColumnType {
        ColumnType { key, value: None, min: 1, max: 1 }
    }

    /// None or one atom of this type.
    pub const fn optional(key: AtomicType) -> ColumnType {
        ColumnType { key, value: None, min: 0, max: 1 }
    }

    /// Any number of atoms of this type.
    pub const fn set(key: AtomicType) -> ColumnType {
        ColumnType { key, value: None, min: 0, max: u32::MAX }
    }

    /// Any number of pairs.
    pub const fn map(key: AtomicType, value: AtomicType) -> ColumnType {
        ColumnType { key, value: Some(value), min: 0, max: u32::MAX }
    }

    fn from_json(json: &Value) -> Option<ColumnType> {
        if json.is_string() {
            return Some(ColumnType::scalar(base_type(json)?));
        }
        let object = json.as_object()?;
        let key = base_type(object.get("key")?)?;
        let value = match object.get("value") {
            Some(value) => Some(base_type(value)?),
            None => None,
        };
        let min = match object.get("min") {
            Some(min) => u32::try_from(min.as_u64()?).ok()?,
            None => 1,
        };
        let max = match object.get("max") {
            Some(Value::String(word)) if word == "unlimited" => u32::MAX,
            Some(max) => u32::try_from(max.as_u64()?).ok()?,
            None => 1,
        };
        (min <= 1 && max >= 1).then_some(ColumnType { key, value, min, max })
    }
}

fn base_type(json: &Value) -> Option<AtomicType> {
    match json {
        Value::String(name) => AtomicType::from_name(name),
        Value::Object(object) => AtomicType::from_name(object.get("type")?.as_str()?),
        _ => None,
    }
}

/// What is wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The reply has no `name` and `tables`.
    #[error("database schema is not an object with \"name\" and \"tables\": {0}")]
    Malformed(String),
    /// A table without `columns`.
    #[error("table {0} in the database schema has no \"columns\"")]
    Table(String),
    /// A column whose type is none of RFC 7047.
    #[error("column {column} of table {table} has an unknown type: {json}")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The start of its declaration.
        json: String,
    },
}

/// A parsed `get_schema` reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// The database's name.
    pub name: String,
    /// Its version, empty when the server gives none.
    pub version: String,
    /// Column types by table and column.
    pub tables: BTreeMap<String, BTreeMap<String, ColumnType>>,
}

impl Schema {
    /// Parses the result of `get_schema`.
    pub fn from_json(json: &Value) -> Result<Schema, SchemaError> {
        let malformed = || SchemaError::Malformed(excerpt(json));
        let name = json.get("name").and_then(Value::as_str).ok_or_else(malformed)?;
        let version = json.get("version").and_then(Value::as_str).unwrap_or("");
        let mut tables = BTreeMap::new();
        for (table, json) in json.get("tables").and_then(Value::as_object).ok_or_else(malformed)? {
            let columns = json
                .get("columns")
                .and_then(Value::as_object)
                .ok_or_else(|| SchemaError::Table(table.clone()))?;
            let mut parsed = BTreeMap::new();
            for (column, json) in columns {
                let ty = json.get("type").and_then(ColumnType::from_json).ok_or_else(|| {
                    SchemaError::Column { table: table.clone(), column: column.clone(), json: excerpt(json) }
                })?;
                parsed.insert(column.clone(), ty);
            }
            tables.insert(table.clone(), parsed);
        }
        Ok(Schema { name: name.into(), version: version.into(), tables })
    }

    /// The type of a column, if the schema has it.
    pub fn column(&self, table: &str, column: &str) -> Option<ColumnType> {
        self.tables.get(table)?.get(column).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parses_types() {
        let schema =
            Schema::from_json(&json!({"name": "D", "version": "1.2.3", "tables": {"T": {"columns": {
                "a": {"type": "integer"},
                "b": {"type": {"key": {"type": "string"}, "min": 0}},
                "c": {"type": {"key": {"type": "uuid", "refTable": "T"}, "min": 0, "max": "unlimited"}},
                "d": {"type": {"key": "string", "value": "real", "min": 0, "max": 7}},
            }}}}))
            .unwrap();
        assert_eq!(schema.version, "1.2.3");
        assert_eq!(schema.column("T", "a"), Some(ColumnType::scalar(AtomicType::Integer)));
        assert_eq!(schema.column("T", "b"), Some(ColumnType::optional(AtomicType::String)));
        assert_eq!(schema.column("T", "c"), Some(ColumnType::set(AtomicType::Uuid)));
        let map = ColumnType { max: 7, ..ColumnType::map(AtomicType::String, AtomicType::Real) };
        assert_eq!(schema.column("T", "d"), Some(map));
        assert_eq!(schema.column("T", "e"), None);
    }

    #[test]
    fn refuses_malformed_schemas() {
        for bad in [
            json!(null),
            json!([]),
            json!({"name": "D"}),
            json!({"name": 1, "tables": {}}),
            json!({"name": "D", "tables": {"T": {}}}),
            json!({"name": "D", "tables": {"T": {"columns": {"a": {}}}}}),
            json!({"name": "D", "tables": {"T": {"columns": {"a": {"type": "blob"}}}}}),
            json!({"name": "D", "tables": {"T": {"columns": {"a": {"type": {"key": "string", "min": 2}}}}}}),
            json!({"name": "D", "tables": {"T": {"columns": {"a": {"type": {"key": "string", "max": 0}}}}}}),
            json!({"name": "D", "tables": {"T": {"columns": {"a": {"type": {"key": "string", "max": -1}}}}}}),
        ] {
            assert!(Schema::from_json(&bad).is_err(), "{bad}");
        }
    }
}
