//! The messages by which compression is measured, in the protocol alone and through sockets.

/// So many texts of about 1 KiB: different ones with the same names in them, as an application sends.
pub(crate) fn texts(count: usize) -> Vec<Vec<u8>> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut roll = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    };
    let symbols = ["EURUSD", "USDJPY", "GBPUSD", "AUDNZD", "XAUUSD"];
    let text = |index: usize| {
        let mut text = format!("{{\"type\":\"update\",\"sequence\":{index},\"items\":[");
        while text.len() < 1000 {
            text += &format!(
                "{{\"id\":{},\"symbol\":\"{}\",\"price\":{}.{:05},\"quantity\":{},\"side\":\"{}\"}},",
                roll() % 1_000_000,
                symbols[(roll() % 5) as usize],
                roll() % 200,
                roll() % 100_000,
                roll() % 5000,
                if roll() % 2 == 0 { "buy" } else { "sell" },
            );
        }
        (text + "]}").into_bytes()
    };
    (0..count).map(text).collect()
}
