// Keeps the page's files, so that it works offline once loaded. A new export has another name for its files' store.

const STORE = "kerasgen-VERSION";

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", (event) => {
  const others = caches.keys().then((names) =>
    Promise.all(names.filter((name) => name.startsWith("kerasgen-") && name !== STORE).map((name) => caches.delete(name)))
  );
  event.waitUntil(others.then(() => self.clients.claim()).then(keepAll));
});

/** Fetch every file of the page that is not kept yet; the browser has most of them already. */
async function keepAll() {
  const store = await caches.open(STORE);
  await Promise.all(FILES.map(async (name) => (await store.match(name)) || store.add(name)));
}

const FILES = ["./"];

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== self.location.origin) return;
  event.respondWith(
    caches.open(STORE).then(async (store) => {
      const kept = await store.match(event.request, { ignoreSearch: true });
      if (kept) return kept;
      const response = await fetch(event.request);
      if (response.ok) store.put(event.request, response.clone());
      return response;
    })
  );
});
