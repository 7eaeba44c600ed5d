//! What requests cost at the usual providers, about: list prices of one region each.

/// List prices in US dollars of one provider's usual class of storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// The class of storage and the region that the prices are of.
    pub provider: &'static str,
    /// Where they stand.
    pub source: &'static str,
    /// PUT and LIST, for 1,000.
    write: f64,
    list: f64,
    /// GET and HEAD, for 1,000.
    read: f64,
    /// Sent out to the Internet, for 1,000,000,000 bytes, beyond what is free.
    egress: f64,
}

/// Of when the prices are.
pub const PRICES_AS_OF: &str = "2026-11";

/// S3 Standard, US East (N. Virginia): 0.005 for 1,000 PUT, COPY, POST or LIST, 0.0004 for 1,000 of all others but DELETE,
/// which is free; 0.09 for a GB out, up to 10 TB a month.
const S3: Prices = Prices {
    provider: "S3 Standard, us-east-1",
    source: "https://aws.amazon.com/s3/pricing/",
    write: 0.005,
    list: 0.005,
    read: 0.0004,
    egress: 0.09,
};

/// Azure Blob Storage, hot tier, LRS, East US: 0.05 for 10,000 writes or lists, 0.004 for 10,000 reads, deleting is free;
/// 0.087 for a GB out, up to 10 TB a month.
const AZURE: Prices = Prices {
    provider: "Azure hot, East US",
    source: "https://azure.microsoft.com/pricing/details/storage/blobs/",
    write: 0.005,
    list: 0.005,
    read: 0.0004,
    egress: 0.087,
};

/// Cloud Storage, Standard, one region: 0.005 for 1,000 operations of class A (insert, list), 0.0004 for 1,000 of class B
/// (get), deleting is free; 0.12 for a GB out, up to 1 TB a month.
const GOOGLE: Prices = Prices {
    provider: "GCS Standard, one region",
    source: "https://cloud.google.com/storage/pricing",
    write: 0.005,
    list: 0.005,
    read: 0.0004,
    egress: 0.12,
};

/// Variables that lead elsewhere than to the provider itself, by the scheme that they are for.
const ELSEWHERE: [(&str, &str); 8] = [
    ("s3", "AWS_ENDPOINT"),
    ("s3", "AWS_ENDPOINT_URL"),
    ("s3", "AWS_ENDPOINT_URL_S3"),
    ("az", "AZURE_STORAGE_ENDPOINT"),
    ("az", "AZURE_ENDPOINT"),
    ("az", "AZURE_STORAGE_USE_EMULATOR"),
    ("az", "AZURE_USE_EMULATOR"),
    ("gs", "GOOGLE_BASE_URL"),
];

impl Prices {
    /// Those of the bucket at `url`; none where nothing is known: local directories, and addresses other than the
    /// provider's own.
    #[must_use]
    pub fn of(url: &str, endpoint: Option<&str>) -> Option<Self> {
        let is_set = |(scheme, name): &(&str, &str)| {
            url.split_once("://").is_some_and(|(of, _)| of == *scheme) && std::env::var_os(name).is_some()
        };
        Self::known(url, endpoint.is_some() || ELSEWHERE.iter().any(is_set))
    }

    fn known(url: &str, is_elsewhere: bool) -> Option<Self> {
        let (scheme, _) = url.split_once("://").filter(|_| !is_elsewhere)?;
        match scheme {
            "s3" => Some(S3),
            "az" => Some(AZURE),
            "gs" => Some(GOOGLE),
            _ => None,
        }
    }

    /// What the counted requests cost, about, and all bytes received if they left the provider's network; in US dollars.
    #[must_use]
    pub fn cost(&self, counted: &super::MeterSnapshot) -> Cost {
        let thousands = |count: u64| count as f64 / 1000.0;
        Cost {
            requests: thousands(counted.puts) * self.write
                + thousands(counted.lists) * self.list
                + thousands(counted.gets + counted.heads) * self.read,
            egress: counted.get_bytes as f64 / 1e9 * self.egress,
        }
    }
}

/// What a mount has cost so far, about, in US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Its requests.
    pub requests: f64,
    /// What it received, if that left the provider's network; within one region it is free.
    pub egress: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MeterSnapshot;

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        for url in ["/srv/volume", "file:///srv/volume", "memory:", "x://y"] {
            assert_eq!(Prices::known(url, false), None, "{url}");
        }
        assert_eq!(Prices::known("s3://bucket/home", true), None, "at another address");
        assert_eq!(Prices::of("s3://bucket/home", Some("https://minio.example")), None);
        for (url, prices) in [("s3://b", S3), ("az://c/p", AZURE), ("gs://b/p", GOOGLE)] {
            assert_eq!(Prices::known(url, false), Some(prices));
        }
    }

    #[test]
    fn a_cost_is_the_sum_of_its_kinds() {
        let counted = MeterSnapshot {
            puts: 2_000,
            lists: 1_000,
            gets: 9_000,
            heads: 1_000,
            deletes: 1_000_000,
            get_bytes: 3_000_000_000,
            ..MeterSnapshot::default()
        };
        let cost = S3.cost(&counted);
        assert!((cost.requests - 0.019).abs() < 1e-9, "{cost:?}");
        assert!((cost.egress - 0.27).abs() < 1e-9, "{cost:?}");
    }
}
