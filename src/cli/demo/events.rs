//! The events that the demonstration sends: what a shop with subscriptions would.

use serde_json::{Value, json};

use crate::base::Timestamp;

const NAMES: [&str; 8] = [
    "Ada Lovelace",
    "Emil Bremer",
    "Fatou Diallo",
    "Jun Watanabe",
    "Lucía Romero",
    "Noor Haddad",
    "Piotr Zieliński",
    "Zoë van Dijk",
];

/// The `n`th event as a `MessageIn`.
pub(super) fn event(n: usize, now: Timestamp) -> Value {
    let name = NAMES
        .get(n % NAMES.len())
        .copied()
        .unwrap_or("Ada Lovelace");
    let customer = json!({"id": format!("cus_{:05}", n % 97), "name": name});
    let cents = 990 + (n * 7919) % 250_000;
    let (event_type, data) = match n % 5 {
        0 => (
            "order.created",
            json!({
                "orderId": format!("ord_{n:06}"),
                "customer": customer,
                "lines": [
                    {"sku": "PH-001", "quantity": 1 + n % 3, "unitCents": 4900},
                    {"sku": "PH-207", "quantity": 1, "unitCents": cents},
                ],
                "shipping": {"method": "express", "country": "NL"},
            }),
        ),
        1 => (
            "invoice.paid",
            json!({
                "invoiceId": format!("inv_{n:06}"),
                "customer": customer,
                "amountCents": cents,
                "currency": "EUR",
                "paidAt": now,
            }),
        ),
        2 => (
            "customer.updated",
            json!({"customer": customer, "changed": ["email", "address"]}),
        ),
        3 => (
            "subscription.renewed",
            json!({
                "subscriptionId": format!("sub_{n:05}"),
                "customer": customer,
                "plan": "team",
                "seats": 3 + n % 40,
            }),
        ),
        _ => (
            "shipment.delivered",
            json!({
                "orderId": format!("ord_{:06}", n / 2),
                "carrier": "dhl",
                "signedBy": name,
            }),
        ),
    };
    json!({
        "eventType": event_type,
        "eventId": format!("demo-{n}"),
        "payload": {"type": event_type, "timestamp": now, "data": data},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_differ_and_have_the_shape_of_standard_webhooks() {
        let now = Timestamp::from_millis(1_767_600_930_120);
        let all: Vec<_> = (0..20).map(|n| event(n, now)).collect();
        for (n, one) in all.iter().enumerate() {
            assert_eq!(one["eventType"], one["payload"]["type"]);
            assert!(one["payload"]["data"].is_object());
            assert!(!all[..n].contains(one));
        }
    }
}
