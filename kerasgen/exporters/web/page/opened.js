// Says how to open the page where a browser was given the file itself: it then loads no module and no model.
// This is a plain script, which browsers do run from a file.

if (location.protocol === "file:") {
  const folder = decodeURIComponent(location.pathname).replace(/[/\\][^/\\]*$/, "");
  const command = `python -m http.server --directory "${folder}"`;
  document.getElementById("status").textContent =
    `A browser loads a model from a server alone. Run: ${command} and open http://localhost:8000 ` +
    `· 瀏覽器只能從伺服器載入模型。請執行: ${command} 再打開 http://localhost:8000`;
}
